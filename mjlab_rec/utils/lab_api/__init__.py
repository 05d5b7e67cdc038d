"""Math and string helpers where task code written for mjlab looks for them."""
