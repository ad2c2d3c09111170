"""A window of WebKitGTK for WebKitWebDriver; the system's Python runs it.

Sites store their data in the given folder. WebKit's own MiniBrowser cannot be used: when driven, it
opens private windows only.
"""

import sys

import gi

gi.require_version("Gtk", "3.0")
gi.require_version("WebKit2", "4.1")
from gi.repository import Gtk, WebKit2  # noqa: E402

(folder,) = sys.argv[1:]
data = WebKit2.WebsiteDataManager(base_data_directory=folder, base_cache_directory=folder)
context = WebKit2.WebContext.new_with_website_data_manager(data)
never = WebKit2.HardwareAccelerationPolicy.NEVER  # a GPU in software would take both cores
view = WebKit2.WebView(
    web_context=context,
    is_controlled_by_automation=True,
    settings=WebKit2.Settings(hardware_acceleration_policy=never),
)


def on_automation_started(_: WebKit2.WebContext, session: WebKit2.AutomationSession) -> None:
    session.connect("create-web-view", lambda _: view)


context.set_automation_allowed(True)
context.connect("automation-started", on_automation_started)
window = Gtk.Window(default_width=1280, default_height=900)
window.add(view)
window.show_all()
Gtk.main()
