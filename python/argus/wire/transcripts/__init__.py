"""Session logs that coding agents leave on disk, as events of schema v1.

One file per format, and its line in `reader.FORMATS`. Contents stay behind: arguments and results are hashed with a key of
this installation, texts are not looked at beyond what tells a prompt from a notice.
"""
