"""The head that every lesson's source has, for sources that tests make."""

HEAD = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Why?
#     opening: Because.
#     objectives: ask.
#     prerequisites: nothing.
#     minutes: 5
#     paper: Section 1.
# ---
"""
