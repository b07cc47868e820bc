"""What the feature browser is told: the atlases and dictionaries that are installed, and runs that were shown.

Pure: it knows no host and no web server. `nodes/routes.py` says where files lie and carries the answers.
"""
