"""Models in SBML and Antimony."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from malformed.case import Case, calls
from malformed.mutations import mutated

_HEAD = '<sbml xmlns="http://www.sbml.org/sbml/level3/version2/core" level="3" version="2">'
_MATH = '<math xmlns="http://www.w3.org/1998/Math/MathML">'
_A = "<ci>A</ci>"
TABLE = "time,A,B\n0,1,0\n1,0.5,0.5\n2,0.25,0.75\n3,0.12,0.88\n"
_COMMANDS = (
    "simulate-model m.xml --end 1 --points 3 --out out.csv",
    "convert m.xml out.ant",
    "identify m.xml t.csv",
    "fit-model m.xml t.csv --starts 1 --minutes 0.01 --processes 1 --out out",
)


def model(
    law: str = "<apply><times/><ci>k</ci><ci>A</ci></apply>",
    *,
    functions: str = "",
    species: str = "",
    parameters: str = '<parameter id="k" value="0.7" constant="true"/>',
    more: str = "",
    stoichiometry: str = "1",
    size: str = "1",
    initial: str = "1",
) -> str:
    """A -> B with a kinetic law in MathML."""
    kinds = f'compartment="c" initialConcentration="{initial}" hasOnlySubstanceUnits="false" boundaryCondition="false"'
    species = species or "".join(f'<species id="{s}" {kinds} constant="false"/>' for s in "AB")
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{_HEAD}<model id="m">{functions}<listOfCompartments>'
        f'<compartment id="c" size="{size}" spatialDimensions="3" constant="true"/></listOfCompartments>'
        f"<listOfSpecies>{species}</listOfSpecies><listOfParameters>{parameters}</listOfParameters>{more}"
        '<listOfReactions><reaction id="R" reversible="false"><listOfReactants>'
        f'<speciesReference species="A" stoichiometry="{stoichiometry}" constant="true"/></listOfReactants>'
        '<listOfProducts><speciesReference species="B" stoichiometry="1" constant="true"/></listOfProducts>'
        f"<kineticLaw>{_MATH}{law}</math></kineticLaw></reaction></listOfReactions></model></sbml>"
    )


def _function(name: str, body: str) -> str:
    return f'<functionDefinition id="{name}">{_MATH}<lambda><bvar><ci>x</ci></bvar>{body}</lambda></math></functionDefinition>'


def _functions(*given: str) -> str:
    return f"<listOfFunctionDefinitions>{''.join(given)}</listOfFunctionDefinitions>"


def _call(name: str, *arguments: str) -> str:
    return f"<apply><ci>{name}</ci>{''.join(arguments)}</apply>"


def _chain(count: int, calls_each: int) -> str:
    """Every function calls the next one, so many times."""
    body = "<apply><plus/>" + _call("f{}", "<ci>x</ci>") * calls_each + "</apply>"
    return _functions(
        *(_function(f"f{i}", body.replace("{}", str(i + 1))) for i in range(count)),
        _function(f"f{count}", "<ci>x</ci>"),
    )


def _rules(*given: tuple[str, str]) -> str:
    rules = (f'<assignmentRule variable="{name}">{_MATH}{formula}</math></assignmentRule>' for name, formula in given)
    return f"<listOfRules>{''.join(rules)}</listOfRules>"


def _variables(names: Iterator[str] | list[str]) -> str:
    return "".join(f'<parameter id="{name}" constant="false"/>' for name in names)


def _parameter(value: str) -> str:
    return f'<parameter id="k" value="{value}" constant="true"/>'


def _bomb() -> str:
    entities = "".join(f'<!ENTITY {chr(98 + i)} "{("&" + chr(97 + i) + ";") * 10}">' for i in range(9))
    return f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aaaaaaaaaa">{entities}]><sbml>&j;</sbml>'


def _contents() -> dict[str, str | bytes]:
    plain = model()
    found: dict[str, str | bytes] = {
        "two functions in a circle": model(
            _call("f", _A),
            functions=_functions(_function("f", _call("g", "<ci>x</ci>")), _function("g", _call("f", "<ci>x</ci>"))),
        ),
        "a function calls itself": model(
            _call("f", _A), functions=_functions(_function("f", _call("f", "<ci>x</ci>")))
        ),
        "wide": model(f"<apply><plus/>{_A * 20_000}</apply>"),
        "rules in a circle": model(
            "<ci>p</ci>", parameters=_variables(["p", "q"]), more=_rules(("p", "<ci>q</ci>"), ("q", "<ci>p</ci>"))
        ),
        "entity bomb": _bomb(),
        "external entity": plain.replace("?>", '?><!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]>', 1).replace(
            'id="m"', 'id="m" name="&a;"'
        ),
        "comments hide the depth": model("<apply><minus/><!-- </a></a> -->" * 50_000 + _A + "</apply>" * 50_000),
        "instructions hide the depth": model("<apply><minus/><?x </a></a> ?>" * 50_000 + _A + "</apply>" * 50_000),
        "data hide the depth": model("<apply><minus/><![CDATA[</a></a>]]>" * 50_000 + _A + "</apply>" * 50_000),
        "attributes hide the depth": model('<apply a="></a></a>"><minus/>' * 50_000 + _A + "</apply>" * 50_000),
        "never closed": model("<apply>" * 100_000)[:-40],
        "empty": "",
        "spaces": "  \n",
        "web page": "<html><body>no</body></html>",
        "binary": bytes(range(256)) * 40,
        "cut": plain[:500],
        "utf-16": plain.encode("utf-16"),
        "utf-16 without its end": plain.encode("utf-16")[:-1],
        "unknown encoding": plain.replace("UTF-8", "klingon"),
        "python encoding": plain.replace("UTF-8", "rot13"),
        "byte encoding": plain.replace("UTF-8", "hex"),
        "idna": plain.replace("UTF-8", "idna"),
        "nul": plain.replace('id="m"', 'id="m\0"'),
        "escape in a name": plain.replace('id="m"', 'id="m" name="\x1b[31mred"'),
        "escape in an id": plain.replace('species="A"', 'species="A\x1b[2J"'),
        "escape as a reference": plain.replace('species="A"', 'species="A&#27;[2J"'),
        "right to left": plain.replace('species="A"', 'species="A\u202e"'),
        "gzip of a model": gzip.compress(plain.encode()),
        "damaged gzip": gzip.compress(plain.encode())[:-20],
        "gzip of nothing": gzip.compress(b""),
        "species twice": plain.replace('id="B" comp', 'id="A" comp'),
        "unknown species": plain.replace('species="A"', 'species="Z"'),
        "unknown compartment": plain.replace('compartment="c"', 'compartment="d"'),
        "no model": f"{_HEAD}</sbml>",
        "no species": model()
        .replace("<listOfSpecies>", "<listOfSpecies><!--")
        .replace("</listOfSpecies>", "--></listOfSpecies>"),
        "level 1": plain.replace('level="3"', 'level="1"'),
        "level 99": plain.replace('level="3"', 'level="99"'),
        "level of words": plain.replace('level="3"', 'level="three"'),
        "long id": plain.replace('id="R"', f'id="{"R" * 100_000}"'),
        "long formula of unknown names": model(
            "<apply><plus/>" + "".join(f"<ci>x{i}</ci>" for i in range(3000)) + "</apply>"
        ),
        "delay": model(
            '<apply><csymbol encoding="text" definitionURL="http://www.sbml.org/sbml/symbols/delay">d</csymbol><ci>A</ci><cn>1</cn></apply>'
        ),
        "delay without arguments": model(
            '<apply><csymbol encoding="text" definitionURL="http://www.sbml.org/sbml/symbols/delay">d</csymbol></apply>'
        ),
        "division by zero": model("<apply><divide/><cn>1</cn><cn>0</cn></apply>"),
        "huge power": model("<apply><power/><ci>A</ci><cn>1e9</cn></apply>"),
        "power of powers": model("<apply><power/>" * 30 + "<ci>A</ci>" + "<cn>9</cn></apply>" * 30),
        "huge whole power": model(
            '<apply><power/><apply><plus/><ci>A</ci><ci>B</ci><ci>k</ci></apply><cn type="integer">1000000</cn></apply>'
        ),
        "product of sums": model("<apply><times/>" + "<apply><plus/><ci>A</ci><ci>B</ci></apply>" * 60 + "</apply>"),
        "huge factorial": model("<apply><factorial/><cn>1e9</cn></apply>"),
        "growth without end": model("<apply><times/><cn>-1e9</cn><ci>A</ci><ci>A</ci></apply>"),
        "very stiff": model("<apply><times/><cn>1e200</cn><ci>A</ci></apply>"),
        "wrong number of arguments": model(_call("f"), functions=_functions(_function("f", "<ci>x</ci>"))),
        "empty law": model(""),
        "empty apply": model("<apply/>"),
        "an operator alone": model("<apply><divide/><ci>A</ci></apply>"),
        "piecewise without pieces": model("<piecewise></piecewise>"),
        "comparison of three": model("<apply><lt/><cn>1</cn><cn>2</cn><cn>3</cn></apply>"),
        "unknown function": model("<apply><ci>h</ci><ci>A</ci></apply>"),
        "rational by zero": model('<cn type="rational">1<sep/>0</cn>'),
        "huge exponent": model('<cn type="e-notation">1<sep/>999999999</cn>'),
        "many species": lambda: model(
            species="".join(
                f'<species id="S{i}" compartment="c" initialConcentration="1" hasOnlySubstanceUnits="false" '
                'boundaryCondition="false" constant="false"/>'
                for i in range(4000)
            )
            + "".join(
                f'<species id="{s}" compartment="c" initialConcentration="1" hasOnlySubstanceUnits="false" '
                'boundaryCondition="false" constant="false"/>'
                for s in "AB"
            )
        ),
    }
    for count in (35, 200, 2000):
        found[f"chain of {count} functions"] = model(_call("f0", _A), functions=_chain(count, 1))
    for count in (12, 28, 39):
        found[f"functions that call twice, {count}"] = model(_call("f0", _A), functions=_chain(count, 2))
    for count in (100, 900, 1500, 100_000):
        found[f"formula {count} deep"] = model("<apply><minus/>" * count + _A + "</apply>" * count)
    for count in (1500, 100_000):
        found[f"elements {count} deep"] = plain.replace(
            "</model>", f"<annotation>{'<a>' * count}{'</a>' * count}</annotation></model>"
        )
    for count in (20, 40, 3000):
        doubled = [(f"p{i}", f"<apply><plus/><ci>p{i + 1}</ci><ci>p{i + 1}</ci></apply>") for i in range(count)]
        found[f"rules that double, {count}"] = model(
            "<ci>p0</ci>",
            parameters=_variables(f"p{i}" for i in range(count + 1)),
            more=_rules(*doubled, (f"p{count}", _A)),
        )
    for value in ("1e400", "nan", "-1", "1e300", "inf", "abc", "", "0x10", "1e", "9" * 5000):
        found[f"parameter {value[:10]}"] = model(parameters=_parameter(value))
    for value in ("1e300", "nan", "-1", "0", "1e9", "abc", "inf", "0.5"):
        found[f"stoichiometry {value}"] = model(stoichiometry=value)
    for value in ("0", "-1", "nan", "inf", "1e300", "1e-320"):
        found[f"size {value}"] = model(size=value)
    for value in ("-1", "nan", "inf", "1e300", "abc"):
        found[f"initial {value}"] = model(initial=value)
    base = model(
        _call("f", _A), functions=_functions(_function("f", "<apply><times/><ci>x</ci><cn>2</cn></apply>"))
    ).encode()
    return found | {f"mutation {seed}": mutated(base, seed) for seed in range(40)}


def sbml() -> Iterator[Case]:
    """SBML files for every command that reads a model."""
    yield from calls("nothing changed", {"m.xml": model(), "t.csv": TABLE}, *_COMMANDS, right=True)
    for name, content in _contents().items():
        yield from calls(name, {"m.xml": content, "t.csv": TABLE}, *_COMMANDS)


def antimony() -> Iterator[Case]:
    """Antimony files."""
    base = "model m\n  A -> B; k*A\n  A = 1; B = 0; k = 0.5\nend\n"
    contents: dict[str, str | bytes] = {
        "imports a file": 'import "/etc/passwd"\nA -> B; 1\n',
        "endless expression": "A -> B; " + "(" * 20_000 + "A" + ")" * 20_000,
        "long sum": "A -> B; " + "+".join(["A"] * 50_000),
        "models within models": "".join(
            f"model m{i}\n x: m{i - 1}(); y: m{i - 1}();\nend\n" if i else "model m0\n A -> B; 1; A = 1; B = 0\nend\n"
            for i in range(40)
        ),
        "empty": "",
        "nul": base.replace("k*A", "k\0*A"),
        "binary": bytes(range(256)),
        "not Antimony": "this is a letter, not a model.\n",
        "sbml": model(),
        "no model": "\n\n",
        "huge number": base.replace("0.5", "1e999"),
        "unknown name": base.replace("k*A", "k*Q*sin(A, B, C)"),
        "long line": "// " + "x" * 1_000_000 + "\n" + base,
        "stoichiometry": base.replace("A -> B", "1e300 A -> B"),
    }
    contents |= {f"mutation {seed}": mutated(base.encode(), seed) for seed in range(6)}
    yield Case("nothing changed", ("convert", "m.ant", "out.xml"), {"m.ant": base}, right=True)
    for name, content in contents.items():
        yield from calls(name, {"m.ant": content}, "convert m.ant out.xml", "simulate-model m.ant --end 1 --points 3")
