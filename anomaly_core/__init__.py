"""The method: preprocessing, router, features, autoencoder, score, threshold, heatmap, bundle, training.

Plain tensors and arrays in and out. Nothing here knows Ray, a storage system or a command line.
"""
