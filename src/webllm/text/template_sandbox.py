"""The Jinja environment of chat templates: a sandbox with a budget.

Jinja's `ImmutableSandboxedEnvironment` forbids private attributes and changes of a template's
arguments. Here a template also has only the methods and filters that chat templates use, and every
operation that can do much at once (filter, test, operator, method) pays from a `Budget` first.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from jinja2 import TemplateAssertionError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from webllm.text.template_budget import Budget
from webllm.text.template_filters import FILTERS, TESTS, Group, plain_key
from webllm.text.template_operations import spend_on_method, spend_on_operator
from webllm.text.template_rewriter import BudgetRewriter

_STR_METHODS = """
    capitalize count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric
    isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind
    rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
"""
_OWN_ARGUMENTS = {
    "_block_vars",
    "_loop_vars",
}  # Jinja's, with the variables of the body around a call
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, frozenset(_STR_METHODS.split())),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (Group, frozenset({"grouper", "list"})),
    (tuple, frozenset({"count", "index"})),
    (int, frozenset()),
    (float, frozenset()),
)


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`, which renders its content.

    In training it marks the assistant's text.
    """

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment of one rendering, with its budget."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, budget: Budget) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
        )
        self.budget = budget
        self.finalize = budget.text
        self.filters = FILTERS
        self.tests = TESTS
        for name in ("lipsum", "cycler"):
            del self.globals[name]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        max_nodes = self.budget.max_nodes
        if len(list(islice(template.find_all(nodes.Node), max_nodes + 1))) > max_nodes:
            raise TemplateAssertionError(f"the template has more than {max_nodes} parts", 1)
        BudgetRewriter().visit(template)
        return template

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, plain_key(self.budget, argument))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend()
        if not self.is_safe_callable(function):  # Jinja's message would quote the object
            raise SecurityError(f"a {type(function).__name__} is not safely callable")
        # Jinja wraps str.format in a function of its own that keeps attributes private.
        method = getattr(function, "__wrapped__", function)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | dict | list | tuple):
            given = [*args, *(kwargs[name] for name in kwargs.keys() - _OWN_ARGUMENTS)]
            args = tuple(spend_on_method(self.budget, owner, method.__name__, given)[: len(args)])
        elif isinstance(owner, LoopContext) or isinstance(function, type):
            self.budget.spend_value(args)  # loop.changed() compares, dict() and namespace() copy
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        spend_on_operator(self.budget, operator, left, right)
        return super().call_binop(context, operator, left, right)
