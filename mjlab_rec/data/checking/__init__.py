"""Find out what is wrong with a recording, and copy what is good."""

from mjlab_rec.data.checking.findings import CheckResult as CheckResult
from mjlab_rec.data.checking.findings import Finding as Finding
from mjlab_rec.data.checking.recording import check as check
from mjlab_rec.data.checking.recording import check_plans as check_plans
from mjlab_rec.data.checking.repairing import repair as repair
