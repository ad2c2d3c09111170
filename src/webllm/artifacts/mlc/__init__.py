"""MLC's folders of weights: `mlc-chat-config.json` and the shards of `tensor-cache.json`."""
