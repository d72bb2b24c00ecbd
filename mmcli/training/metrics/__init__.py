"""What is measured of a model's answers, by the field's own definitions and, where there are some, libraries."""
