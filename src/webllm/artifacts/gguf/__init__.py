"""GGUF files (version 2 and 3), of one part or several."""
