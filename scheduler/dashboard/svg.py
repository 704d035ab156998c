"""SVG elements as safe markup: whatever is put in is escaped, nothing is trusted by its origin."""

from __future__ import annotations

from markupsafe import Markup, escape

Value = str | float | None


def element(tag: str, *children: str, **attributes: Value) -> Markup:
    """Return one element. Children that are not Markup are escaped, and so is every value.

    ``class_`` stands for class, an underscore in a name for a hyphen; None leaves an attribute
    out. Numbers are rounded to a tenth of a pixel.
    """
    written = Markup("").join(
        Markup('{}{}="{}"').format(" ", _name(name), _value(value))
        for name, value in attributes.items()
        if value is not None
    )
    name = escape(tag)
    if not children:
        return Markup("<{}{}/>").format(name, written)
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(name, written, inner, name)


def image(
    width: float, height: float, label: str, /, *children: str, **attributes: Value
) -> Markup:
    """Return a whole picture that scales with its place; `label` is what is read out of it."""
    given: dict[str, Value] = {
        "viewBox": f"0 0 {number(width)} {number(height)}",
        "role": "img",
        "aria_label": label,
        **attributes,
    }
    return element("svg", *children, **given)


def title(text: str) -> Markup:
    """Return what is shown when the pointer rests."""
    return element("title", text)


def number(value: float) -> str:
    """Write a coordinate: a tenth of a pixel is as fine as anybody sees."""
    return f"{value:.1f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def _name(name: str) -> str:
    return name if name == "viewBox" else name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else number(value)
