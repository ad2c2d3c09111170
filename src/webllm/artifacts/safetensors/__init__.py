"""Hugging Face's folders: `config.json` and one or several `.safetensors` files."""
