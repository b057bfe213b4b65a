"""Pictures can be read on white and on black, stay small, and are the same whenever they are drawn."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from examples.textbook import picture

WHITE, BLACK = "#ffffff", "#0d1117"  # pages, and GitHub's dark ones


def luminance(colour):
    """Relative luminance, from WCAG 2.1."""
    x = np.array(to_rgb(colour))
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    """Contrast ratio, from WCAG 2.1: 1 to 21."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_is_wcags():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # published with two digits


@pytest.mark.parametrize("ground", [WHITE, BLACK])
@pytest.mark.parametrize("colour", sorted({*picture.COLOURS, *picture.METHODS.values()}))
def test_lines_can_be_seen(colour, ground):
    assert contrast(colour, ground) >= 3  # WCAG's least for graphics


@pytest.mark.parametrize("ground", [WHITE, BLACK])
def test_text_can_be_read(ground):
    assert contrast(picture.INK, ground) >= 4


def test_a_spread_is_the_median_and_the_range_without_what_is_not_finite():
    _, ((axes,),) = picture.panels()
    runs = np.array([[1.0, 2.0, np.nan], [3.0, np.inf, np.nan], [8.0, 6.0, np.nan]])
    picture.spread(axes, [10, 20, 30], runs, picture.BLUE, "runs")
    (line,), (band,) = axes.lines, axes.collections
    np.testing.assert_array_equal(line.get_xydata(), [[10, 3], [20, 4]])
    vertices = {tuple(v) for v in band.get_paths()[0].vertices}
    assert vertices == {(10, 1), (10, 8), (20, 2), (20, 6)}


def test_panels_have_a_transparent_ground_and_names():
    figure, grid = picture.panels(3, 2)
    assert grid.shape == (2, 3)
    np.testing.assert_allclose(figure.get_size_inches(), [3 * 4.2, 2 * 3.2])
    picture.label(grid[0, 0], "title", "x", "y")
    assert [grid[0, 0].get_title(), grid[0, 0].get_xlabel(), grid[0, 0].get_ylabel()] == ["title", "x", "y"]
    assert all(axes.get_facecolor()[3] == 0 for axes in grid.flat)


def test_a_picture_is_the_same_whenever_it_is_drawn(tmp_path):
    def draw(name):
        figure, ((axes,),) = picture.panels()
        axes.plot([1, 2], [3, 4], label="a line")
        picture.legend(axes)
        return picture.save(figure, tmp_path / name).read_bytes()

    assert draw("one.png") == draw("other.png")


def test_a_picture_that_is_too_large_is_an_error(tmp_path):
    figure, ((axes,),) = picture.panels(width=8, height=8)
    axes.imshow(np.random.default_rng(0).uniform(size=(900, 900)))
    with pytest.raises(
        ValueError, match=rf"noise\.png has [\d,]+ bytes, more than {picture.BYTES:,}: draw fewer points"
    ):
        picture.save(figure, tmp_path / "noise.png")


@pytest.mark.parametrize(("more_is_better", "first", "second"), [(False, "GREEN", "RED"), (True, "RED", "GREEN")])
def test_differences_have_colours_only_beyond_the_noise(more_is_better, first, second):
    _, ((axes,),) = picture.panels()
    middle, half = np.array([-2.0, 2.0, 1.0]), np.array([1.0, 1.0, 3.0])
    picture.differences(axes, ["a", "b", "c"], middle, half, more_is_better=more_is_better)
    drawn = [tuple(colour[:3]) for colour in axes.collections[0].get_colors()]
    assert drawn == [to_rgb(getattr(picture, name)) for name in (first, second, "INK")]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]
