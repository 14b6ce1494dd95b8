"""Where manifests come from, and what people ask of them."""
