"""Parts of one's own that a configuration can name; docs/labeling_with_teachers.md
shows them.
"""
