"""Collecting recordings on many machines: a plan of fixed shares of the work, and who does them."""

from mjlab_rec.collecting.folder import CollectError as CollectError
from mjlab_rec.collecting.folder import Folder as Folder
from mjlab_rec.collecting.folder import download as download
from mjlab_rec.collecting.plan import Plan as Plan
from mjlab_rec.collecting.plan import Shard as Shard
from mjlab_rec.collecting.streaming import RowStream as RowStream
