"""Digits and options that make the demo a matter of seconds."""

from kdops.demo.data import digits

TINY = ["--data", "digits", "--epochs", "1", "--teacher-epochs", "1", "--batch", "20",
        "--steps", "2", "--images", "40", "--rounds", "1"]  # fmt: skip


def few_digits(students=60, teacher=100):
    images = digits(students, teacher)
    images.test = tuple(x[:50] for x in images.test)
    return images
