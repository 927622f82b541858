# Reads the part of HCL that a tfvars file uses: names with literal values. Anything else is an error.

def tokens:
    [scan("/\\*(?:[^*]|\\*(?!/))*\\*/|#[^\\n]*|//[^\\n]*|\"(?:[^\"\\\\]|\\\\.)*\"|[A-Za-z_][A-Za-z0-9_-]*|-?[0-9]+(?:\\.[0-9]+)?|\\S")]
    | map(select(test("^(#|//|/\\*)") | not));

# Reads a value from a list of tokens. Returns {value, rest}.
def literal:
    def list($items):
        if .[0] == "]" then {value: $items, rest: .[1:]}
        elif .[0] == "," then .[1:] | list($items)
        else literal as $item | $item.rest | list($items + [$item.value]) end;
    def object($entries):
        if .[0] == "}" then {value: $entries, rest: .[1:]}
        elif .[0] == "," then .[1:] | object($entries)
        elif .[1] == "=" then .[0] as $name | .[2:] | literal as $entry
            | $entry.rest | object($entries + {($name | ltrimstr("\"") | rtrimstr("\"")): $entry.value})
        else error("expected a name and a value at: \(.[0:3] | join(" "))") end;
    if .[0] == "[" then .[1:] | list([])
    elif .[0] == "{" then .[1:] | object({})
    elif .[0] // "" | test("^(\"|-?[0-9]|(true|false|null)$)") then {value: (.[0] | fromjson), rest: .[1:]}
    else error("expected a literal value at: \(.[0:3] | join(" "))") end;

# Converts the text of a tfvars file to an object.
def tfvars:
    (["{"] + tokens + ["}"] | literal) | if .rest == [] then .value else error("unexpected closing bracket") end;

# Converts the text of variables.tf to an object with the defaults, including those of optional attributes.
def defaults:
    [scan("(?m)^variable \"([a-z_]+)\" \\{\n((?:  .*\n|\n)*)\\}")] | map(
        .[0] as $name | .[1]
        | {($name): (
            (try (capture("(?m)^  default +=(?<value> [^\\n]*)").value | tokens | literal.value) catch null) as $default
            | if $default == {} then [scan("(?m)^    ([a-z_]+) *= optional\\([a-z]+, ([^)\\n]*)\\)")]
                | map({(.[0]): (.[1] | fromjson)}) | add // {}
              else $default end)}
    ) | add;
