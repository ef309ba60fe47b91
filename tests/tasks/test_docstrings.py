"""Reading docstrings from source, on a library written for the test."""

from raylib.tasks import docstrings

SOURCE = '''"""About animals."""
raise ImportError("a module that must not be imported")

def feed(animal, amount=1):
    """Give food to an animal.

    More.
    """

def _hidden():
    """Private."""

def undocumented():
    pass

class Cage(list, object):
    """Holds animals."""

    def open(self, wide=False):
        """Open the door."""

    def __len__(self):
        """Private too."""

    @property
    def door(self):
        """The door."""

    @door.setter
    def door(self, value):
        """Set the door."""

try:
    import nothing
except ImportError:
    pass
else:
    def late():
        """Found inside a try."""
'''


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_entries_of_a_module_in_source_order_with_headings(tmp_path):
    write(tmp_path, "zoo.py", SOURCE)

    (module,) = docstrings.collect(tmp_path, ["zoo"])

    assert [(entry.qualname, entry.kind, entry.heading) for entry in module.entries] == [
        ("", "module", "zoo"),
        ("feed", "function", "feed(animal, amount=1)"),
        ("Cage", "class", "class Cage(list, object)"),
        ("Cage.open", "method", "Cage.open(wide=False)"),
        ("Cage.door", "method", "Cage.door()"),
        ("late", "function", "late()"),
    ]
    assert module.entries[1].docstring == "Give food to an animal.\n\nMore."
    assert module.entries[4].docstring == "The door.", "the getter's, not the setter's"
    assert [module.entries[0].name, module.entries[3].name] == ["zoo", "open"]


def test_packages_are_walked_without_private_parts_and_tests(tmp_path):
    for name in ("__init__", "mammals", "_secret", "test/cases", "birds/__init__", "birds/owl"):
        write(tmp_path, f"zoo/{name}.py", '"""Text."""')
    write(tmp_path, "_other.py", '"""Text."""')
    write(tmp_path, "tkinter.py", '"""Text."""')
    write(tmp_path, "_pyio.py", '"""Text."""')

    found = docstrings.collect(tmp_path, ["zoo", "_other", "tkinter", "_pyio", "absent"])

    assert [module.name for module in found] == ["io", "zoo", "zoo.birds", "zoo.birds.owl", "zoo.mammals"]


def test_a_long_signature_is_cut(tmp_path):
    arguments = ", ".join(f"argument_{n}" for n in range(30))
    write(tmp_path, "zoo.py", f'def feed({arguments}):\n    """Give."""\n')

    (module,) = docstrings.collect(tmp_path, ["zoo"])

    heading = module.entries[0].heading
    assert len(heading) == docstrings.MAX_SIGNATURE_CHARS and heading.startswith("feed(argument_0, argument_1")
    assert heading.endswith(" ...")


def test_this_python_has_the_modules_everyone_knows():
    found = {module.name: module for module in docstrings.collect(names=["json", "statistics", "_pydecimal"])}

    assert {"json", "json.decoder", "statistics", "decimal"} <= set(found)
    assert "median" in {entry.qualname for entry in found["statistics"].entries}
