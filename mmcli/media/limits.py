"""What one input may cost, in one place: a few bytes of file can announce gigabytes, or minutes of work."""

IMAGE_FILE = 2 << 30  # bytes of an image that lies on the disk and is read piece by piece
STREAM = 512 << 20  # bytes from a pipe or an address, which are kept in memory
UNKNOWN_STREAM = 256 << 20  # bytes of a pipe that does not begin like a recording of a well-known kind
LIST = 64 << 20  # bytes of a list of names
FIFO_WAIT = 10.0  # seconds for something to begin to write to a named FIFO

PIXELS = 250_000_000  # of an image; the largest phone cameras make 200 megapixels
FULL_PIXELS = 120_000_000  # of an image that is to be drawn on, of which there are then two
HELD_PIXELS = 12_500_000  # of an image that waits for a model or to be drawn on: more are made fewer, or read again
WHOLE = 1 << 31  # pixels a side that no image has: it is decoded whole, unless that is more than can be held
PROBE = 1  # pixels a side: an image that is read just to see that it can be
VIDEO_PIXELS = 36_000_000  # of a frame of a video; 8K has 33 million, and a decoder keeps several

DECODING = 1 << 30  # bytes that all images being decoded at one time may take together, or one alone
BYTES_PER_PIXEL = {  # what Pillow and the libraries below it take at their greatest while decoding, measured
    "JPEG": 4,
    "PNG": 4,
    "GIF": 8,
    "WEBP": 16,  # two canvases, the decoded frame and the image
    "TIFF": 8,  # a strip may be the whole image
    "BMP": 4,
    "AVIF": 12,
    "HEIF": 12,
    "JPEG2000": 20,  # samples of 32 bits
    "PPM": 4,
}
BYTES_PER_ROW = 24  # Pillow points to each row of an image, and of a copy that is turned or drawn on
BYTES_PER_COEFFICIENT = 2  # a JPEG of several scans keeps all its coefficients

SCANS = 100  # of a JPEG: progressive ones have about 10
SCANNED = 4_000_000_000  # coefficients that a JPEG's scans may go over, all together
SEGMENTS = 20_000  # of a JPEG, before its first scan
CHUNKS = 100_000  # of a PNG, beyond one for every 4096 bytes
PROFILE = 4 << 20  # bytes of a colour profile
FRAMES = 1_000  # that are counted; that there are more is said
PAGES = 64  # of a TIFF that are looked at for one that is no reduced image
