"""A tiny collaborative filter: cosine similarity of the products' sales."""

import os

import numpy

PRODUCTS = ["coffee", "filter", "tea", "milk", "sugar"]

# One row a receipt, one column a product.
RECEIPTS = numpy.array(
    [
        [1, 1, 0, 1, 0],
        [1, 1, 0, 0, 1],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 0, 1],
        [1, 0, 0, 1, 1],
        [1, 1, 0, 1, 1],
    ],
    dtype=float,
)


class Recommender:
    """Scores products by their similarity to those in the basket."""

    def __init__(self, receipts=RECEIPTS):
        lengths = numpy.linalg.norm(receipts, axis=0)
        self.similarity = (receipts.T @ receipts) / numpy.outer(lengths, lengths)

    def recommend(self, basket):
        """The products not in the basket with a score above the threshold, best first."""
        threshold = float(os.environ.get("SHOP_THRESHOLD", "0.5"))
        if not basket:
            return []
        chosen = [PRODUCTS.index(product) for product in basket]
        scores = self.similarity[chosen].mean(axis=0)
        found = [(product, scores[n]) for n, product in enumerate(PRODUCTS) if n not in chosen and scores[n] >= threshold]
        return sorted(found, key=lambda pair: -pair[1])
