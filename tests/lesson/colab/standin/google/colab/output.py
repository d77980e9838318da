"""The switches that Colab has for its outputs."""


def enable_custom_widget_manager() -> None:
    pass


def disable_custom_widget_manager() -> None:
    pass


def clear() -> None:
    pass
