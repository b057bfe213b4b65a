"""The textbook's ideas, one program each: it measures, prints a table and draws a picture.

python -m examples.textbook                         all of them
python -m examples.textbook.one_variable --quick    one, small
"""
