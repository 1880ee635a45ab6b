"""Networks, costs and the page of the ablations of the paper."""
