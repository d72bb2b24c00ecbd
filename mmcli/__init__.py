"""mmcli: pictures in, words, boxes and masks out."""
