"""Hostile templates cannot reach our objects, and are stopped with little time and memory used."""

import itertools
import time
import tracemalloc

import pytest
from template_attacks import COSTLY

from webllm.errors import TemplateError
from webllm.text import template_budget
from webllm.text.chat_template import ChatTemplate
from webllm.text.template_budget import TemplateLimits

MESSAGES = [{"role": "user", "content": "hello " * 100}]
LIMITS = TemplateLimits(steps=20_000, seconds=0.5)
GROW = "{% set ns = namespace(s='aaaa', l=[1], n=3) %}{% for i in range(99) %}"

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ messages | attr('__class__') }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{a.__init__.__globals__}'.format(a=raise_exception) }}",
    "{{ '%s' | format(self) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception.__wrapped__.__code__ }}",
    "{{ strftime_now.__self__._code }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__.os }}",
    "{{ self.__init__ }}{{ self._TemplateReference__context.environment }}",
    "{% for x in [1] %}{{ loop._iterator }}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}{{ m.__call__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({}) }}",
    "{{ messages[0].pop('role') }}",
    "{% set messages[0].role = 'x' %}",
    "{% import 'os' as os %}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ 1 .__class__ }}{{ (1.5).__class__ }}",
    "{{ environment }}{{ context }}{{ config }}",
]
BOMBS = [
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'a' }}",
    "{{ [1] * 10 ** 9 }}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%.999999999f' % 1.5 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10 ** 9) }}",
    "{{ ('{0}' * 9999).format('a' * 99999) }}",
    "{{ ('%s' * 999) % (('a' * 99999,) * 999) }}",
    "{{ 'a'.center(10 ** 9) }}",
    "{{ 'a'.zfill(10 ** 9) }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a' | indent(10 ** 9) }}",
    "{{ [1] | tojson(indent=10 ** 9) }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ lipsum(10 ** 9) }}",
    "{{ 1.5 | round(10 ** 9) }}",
    "{{ 'a' | replace('', 'b' * 99999) | replace('', 'c' * 99999) }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "{{ (['a' * 99999] * 9999) | join }}",
    "{{ ('a' * 99999).join(['a'] * 9999) }}",
    "{{ range(10 ** 9) | list }}",
    "{% for i in range(10 ** 9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}" + "a" * 9999 + "{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "a" * 9999 + "{% endfor %}{% endset %}",
    "{% filter upper %}{% for i in range(99999) %}" + "a" * 9999 + "{% endfor %}{% endfilter %}",
    "{% for i in range(99999) %}{% if messages[0].content * 9 == 'x' %}{% endif %}{% endfor %}",
    GROW + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    GROW + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    GROW + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    GROW + "{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    GROW + "{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    GROW + "{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    GROW + "{% set ns.l = ns.l + ns.l %}{% endfor %}",
    GROW + "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    GROW + "{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}{{ ns.l | tojson }}",
    GROW + "{% set ns.l = dict(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l == ns.l }}",
    GROW + "{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{{ -1 | _spend }}{{ (-10 ** 9) | _spend }}{{ 'a' * 10 ** 8 }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_out(source: str) -> None:
    """An escape ends in an error or renders nothing, and the messages are unchanged."""
    messages = [dict(message) for message in MESSAGES]
    try:
        shown = ChatTemplate(source, limits=LIMITS).render(messages)
    except TemplateError:
        shown = ""
    assert shown in ("", "[Undefined]")
    assert messages == MESSAGES


@pytest.mark.parametrize("source", BOMBS + COSTLY)
def test_bombs_are_refused_quickly_and_in_little_memory(source: str) -> None:
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(TemplateError):
        ChatTemplate(source, limits=LIMITS).render(MESSAGES)
    seconds = time.monotonic() - start
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < LIMITS.seconds + 4  # tracing and a busy machine included
    assert peak_bytes < 200 * 2**20


OBJECTS = [
    *("raise_exception", "strftime_now", "range", "dict", "namespace", "namespace(a=dict)"),
    *("joiner()", "self", "loop", "f", "messages[0].get", "'a'.upper", "messages[0].items()"),
    *("messages | map('upper')", "messages | map(attribute='role')", "messages[0] | items"),
    *("messages | reverse", "''.format", "loop.cycle", "[raise_exception]", "{'a': range}"),
    *("missing", "missing | default(dict)", "self.b"),
]
WAYS_TO_SHOW = [
    *("X", "X | upper", "X | string", "X ~ ''", "'%s' % X", "'%r' % (X,)", "'{}'.format(X)"),
    *("'{!r}'.format([X])", "[X] | join", "[X] | string", "X | e", "X | safe", "X | trim"),
    *("X | capitalize", "X | title", "X | lower", "X | truncate", "X | replace('a', 'b')"),
    *("'a' | replace('a', X)", "X | indent", "X | tojson", "raise_exception(X)", "f(X)"),
    *("[1].index(X)", "(1,).index(X)", "messages[X].y", "[X, X] | sort", "[X, X] | max"),
    *("[X] | map('upper') | list", "[X] | map(X) | list", "[1] | select(X) | list", "X + 1"),
    *("namespace(unsafe_callable=true, x=X)()", "X()()", "','.join([X])", "X is lower"),
    *("{X: 1}", "1 % X", "{'a': X} | dictsort | string", "[X] | unique | join", "strftime_now(X)"),
    *(
        "X | groupby('a')",
        "[X] | groupby('a') | string",
        "[X] | groupby(X)",
        "X | sum",
        "[X] | sum",
    ),
    *("[1] | sum(start=X)", "[X] | sum(attribute=X)", "X | batch(2)", "[X] | batch(1) | string"),
    *("[1] | batch(X)", "[1] | batch(2, X) | list", "X | round", "1 | round(X)", "1 | round(1, X)"),
    *("'%s' | format(X)", "X | format(1)", "'%(a)s' | format(a=X)", "X | wordcount"),
]


@pytest.mark.parametrize("shown", OBJECTS)
def test_nothing_shows_where_an_object_lies(shown: str) -> None:
    """Neither a prompt nor an error's message has an address."""
    for way in WAYS_TO_SHOW:
        source = (
            "{% macro f(x) %}{{ x }}{% endmacro %}{% block b %}{% endblock %}"
            "{% for i in [1] %}{{ " + way.replace("X", f"({shown})") + " }}{% endfor %}"
        )
        try:
            said = ChatTemplate(source).render(MESSAGES)
        except TemplateError as error:
            said = str(error)
        assert "0x" not in said, source


def test_messages_of_errors_stay_short() -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate("{{ raise_exception('a' * 1000000) }}").render(MESSAGES)
    assert "(1000000 characters)" in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_ten_thousand_messages_are_no_attack() -> None:
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% if m['role'] == 'user' and "
        "m.content is string and not m.content.startswith('x') %}{% set ns.n = ns.n + 1 %}"
        "{% endif %}{% endfor %}{% for m in messages %}{{ m['role'] + ': ' + m.content | trim ~ "
        "'\n' }}{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1] }}{% endif %}"
        "{% endfor %}{{ ns.n }}"
    )
    limits = TemplateLimits(seconds=60)  # of a busy machine
    messages = [{"role": "user", "content": "hello " * 20}] * 10_000
    assert ChatTemplate(source, limits=limits).render(messages).endswith("hello\n10000")


def test_time_is_limited_too() -> None:
    limits = TemplateLimits(seconds=0.05)
    template = ChatTemplate("{% for i in range(99999) %}{{ i }}{% endfor %}" * 99, limits=limits)
    with pytest.raises(TemplateError, match="too much time"):
        template.render([])


def test_the_time_of_other_programs_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock advances a second with every look, but the template has hardly run."""
    template = ChatTemplate("{% for i in range(99) %}{{ i }}{% endfor %}")
    seconds = itertools.count()
    monkeypatch.setattr(template_budget, "monotonic", seconds.__next__)
    assert template.render([]).endswith("9798")
    monkeypatch.setattr(template_budget, "_cpu_time", seconds.__next__)  # as in a browser
    with pytest.raises(TemplateError, match="too much time"):
        template.render([])


def test_the_budget_grows_with_the_messages_and_is_new_for_each_rendering() -> None:
    source = (
        "{% for m in messages %}{% for c in m.content.split() %}{{ c }}{% endfor %}{% endfor %}"
    )
    template = ChatTemplate(source)
    messages = [{"role": "user", "content": "word " * 20_000}] * 3
    for _ in range(2):
        assert len(template.render(messages)) == 240_000
