"""What a study file may say."""

from palimpsest.study.file import Arm, Study, fingerprint, load_study, near

__all__ = ["Arm", "Study", "fingerprint", "load_study", "near"]
