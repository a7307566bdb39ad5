"""``verl-llds preflight``: what a run needs, looked at before anything is loaded.

Every recipe starts with it: configuration, data, model, retriever, disk, GPUs and their memory, and whether the
checkpoint folder belongs to this run. Each check yields findings of one line that say what to do.
"""
