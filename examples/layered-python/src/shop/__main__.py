"""Command line: `python -m shop PRODUCT…` prints what sells with the products."""

import argparse
import sys

from shop.recommend import PRODUCTS, Recommender


def main():
    parser = argparse.ArgumentParser(prog="shop", description="recommends products that sell together")
    parser.add_argument("products", nargs="*", help="what is in the basket: " + ", ".join(PRODUCTS))
    parser.add_argument("--check", action="store_true", help="end with 0 when the model works")
    args = parser.parse_args()
    recommender = Recommender()
    if args.check:
        return 0 if recommender.recommend(["coffee"]) else 1
    unknown = set(args.products) - set(PRODUCTS)
    if unknown:
        parser.error("unknown product: " + ", ".join(sorted(unknown)))
    for product, score in recommender.recommend(args.products):
        print(f"{product:8} {score:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
