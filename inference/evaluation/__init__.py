"""How well a model explains images, in numbers."""
