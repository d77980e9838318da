"""The tables that dials show, with room around each cell: inside a widget the page gives them none."""


def row(*cells: str, tag: str = "td") -> str:
    """One row of cells, which are HTML; tag: "th" for a head."""
    style = "text-align:left;vertical-align:top;padding:1px 12px 1px 4px"
    return "<tr>" + "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell in cells) + "</tr>"
