"""Cost of the ablations of the paper, and the page of their results: `cost` or `page`."""

import sys

from ablations import cost, page

if __name__ == "__main__":
    verbs = {"cost": cost.main, "page": page.main}
    if len(sys.argv) < 2 or sys.argv[1] not in verbs:
        sys.exit(f"error: expected one of {', '.join(verbs)} as the first word")
    verbs[sys.argv[1]](sys.argv[2:])
