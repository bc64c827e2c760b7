"""The faults that `parse_markup` finds."""

from tests.support.markup_faults import parse_markup

PAGE = """<html><head><link rel="stylesheet" href="/a.css"></head><body><nav><li>A theme's own</li></nav>
<div id="main" class="trail"><h1>The  title</h1>%s</div>
<footer><button type="submit">Search</button></footer></body></html>"""


def test_complete_page_has_no_fault() -> None:
    markup = parse_markup(
        PAGE
        % """<ul><li><a href="/">A</a></li></ul><label for="name">Name</label>
<form id="edit"><input id="name"><input type="submit" value="Save"></form>
<button type="submit" form="edit">OK</button>"""
    )
    assert markup.faults == []
    assert markup.labels <= markup.ids
    assert (markup.headings, markup.links, markup.forms) == (["The title"], ["/a.css"], {"edit"})
    assert "trail" in markup.classes


def test_item_without_list_and_button_without_form_are_faults() -> None:
    markup = parse_markup(PAGE % '<li>B</li><input type="submit" value="OK"><button type="submit" form="x" name="go">')
    assert markup.faults == ["li in ['div']", "button of no form: OK", "button of no form: go"]
