"""The labels that nano was taught, where its configuration names nothing else."""

# The classes of COCO, in the order of the detector's.
COCO = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
]  # fmt: skip
# … and what other training images show often enough.
MORE = [
    "shoe", "bag", "pants", "raccoon", "dress", "kangaroo", "coat", "blouse", "shirt", "sunglasses", "jeans", "skirt",
    "ambulance", "sweater", "hat", "blazer", "suit", "t-shirt", "jacket", "scarf", "vest", "boot", "leggings",
    "shorts", "sock",
]  # fmt: skip
LABELS = (*COCO, *MORE)
