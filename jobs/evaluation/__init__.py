"""How good a bundle is: test images with a known truth, through the models, to figures and a report."""
