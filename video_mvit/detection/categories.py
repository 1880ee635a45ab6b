"""The 80 categories of COCO, whose ids 1 to 90 have gaps."""

_NAMES = """
1 person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant
13 stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra
25 giraffe
27 backpack, umbrella
31 handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove
41 skateboard, surfboard, tennis racket, bottle
46 wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot
58 hot dog, pizza, donut, cake, chair, couch, potted plant, bed
67 dining table
70 toilet
72 tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator
84 book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""


def coco_categories() -> dict[int, str]:
    """Return the name of each category id, in the order of the classes of COCO detectors."""
    categories = {}
    for line in _NAMES.strip().splitlines():
        first, _, names = line.partition(" ")
        for category_id, name in enumerate(names.split(", "), start=int(first)):
            categories[category_id] = name
    return categories
