"""Training a bundle: frozen features once per image, router and autoencoders as Ray tasks, resumable by category."""
