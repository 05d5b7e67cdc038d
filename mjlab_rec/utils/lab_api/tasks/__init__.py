"""Importing packages of tasks, where code written for mjlab looks for it."""
