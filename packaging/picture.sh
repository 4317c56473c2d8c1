#!/bin/sh
# Draws the demo's output (standard input) as an SVG picture (standard output) for the README.
set -eu
sed -e 's#/tmp/perennial-demo\.[A-Za-z0-9]*##g' | awk '
    function escaped(text) { gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text); return text }
    # Long lists are shown by their first line.
    /^    removed / { if (removed++) next }
    { if (length($0) > 118) $0 = substr($0, 1, 117) "…"; line[n++] = $0 }
    END {
        height = n * 18 + 40
        printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 980 %d\" role=\"img\" aria-label=\"The output of make demo\">\n", height
        print "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#10151c\"/>"
        print "<g font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\" xml:space=\"preserve\">"
        for (i = 0; i < n; i++) {
            heading = line[i] ~ /^ ?[0-9]+  /
            printf "<text x=\"20\" y=\"%d\" fill=\"%s\"%s>%s</text>\n", 32 + i * 18, heading ? "#8fd3a8" : "#c9d4e0", heading ? " font-weight=\"bold\"" : "", escaped(line[i])
        }
        print "</g>\n</svg>"
    }'
