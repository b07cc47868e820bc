import pytest

from fluxtionary.residual import Site, SiteError


@pytest.mark.parametrize("text", ["double.18.img", "single.0.txt", "double.3.txt.update", "single.9.img.mlp"])
def test_sites_are_written_as_they_are_read(text):
    assert str(Site.parse(text)) == text
    assert Site.parse(Site.parse(text)) == Site.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "double.img",
        "triple.1.img",
        "double.-1.img",
        "double.01.img",
        "double.1.img.attn",
        "double.1.IMG",
        "double.99999.img",
    ],
)
def test_what_is_no_site_is_refused_with_an_example(text):
    with pytest.raises(SiteError, match=r"double\.18\.img"):
        Site.parse(text)


def test_depth_is_checked_against_the_model():
    Site.parse("double.18.img").check_depth(19, 38)
    with pytest.raises(SiteError, match=r"19 double and 38 single.*double\.0 to double\.18"):
        Site.parse("double.19.img").check_depth(19, 38)
    with pytest.raises(SiteError, match="no single blocks"):
        Site.parse("single.0.img").check_depth(19, 0)
