"""A web page that shows what is in a recording."""

from mjlab_rec.data.reporting.clips import Clip as Clip
from mjlab_rec.data.reporting.reporting import report as report
