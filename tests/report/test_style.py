"""Files of figures: the same bytes in any process, and no pyplot."""

from n3r.report import figures, style

COMPRESSION = "figures.compression_curve([1, 10, 100], [1, 2, 3], 10, 2).figure"


def test_files_are_byte_equal_in_another_process_and_need_no_pyplot(run_fresh):
    code = (
        "import sys; from hashlib import sha256; from n3r.report import figures, style;"
        f"fig = {COMPRESSION};"
        "made = style.to_svg(fig).encode(), style.to_png(fig);"
        "print('matplotlib.pyplot' in sys.modules, *(sha256(file).hexdigest() for file in made))"
    )
    first, second = run_fresh(code, PYTHONHASHSEED="1"), run_fresh(code, PYTHONHASHSEED="2")
    assert first == second and first.startswith("False ")


def test_png_is_an_image_of_the_asked_resolution():
    fig = figures.roc({"new": ([0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4])}).figure
    small, large = (style.to_png(fig, dpi) for dpi in (50, 100))
    assert small.startswith(b"\x89PNG")
    assert [int.from_bytes(image[16:20]) for image in (small, large)] == [210, 420]


def test_a_figure_that_was_drawn_is_drawn_the_same():
    fig = figures.histogram([1, 2, 2, 3], "tokens of a chunk", "chunks").figure
    first = style.to_svg(fig)
    style.to_png(fig, 50)
    assert style.to_svg(fig) == first
