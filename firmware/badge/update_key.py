"""The key whose signature this badge asks of an update; none: it takes no updates over the cable.

Public. `tocsin-badge image key` writes this file; docs/developer.md says when.
"""

PUBLIC = ""
