#!/bin/sh
# The guide's curl lines in a loop, one chunk after the other: curl.sh FILE ENDPOINT SIGNATURE [curl's options...]
# The working directory takes the chunks.
set -eu
file=$1 endpoint=$2 signature=$3
shift 3

answer=$(curl -fsS "$@" -X POST \
    -H "X-Filename: $(basename "$file")" \
    -H "X-Total-Size: $(stat -c %s "$file")" \
    -H "X-Signature: $signature" \
    "$endpoint")
member() { printf %s "$answer" | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p"; }
session=$(member session_id)

split -b "$(member chunk_size)" -d -a 5 "$file" chunk_
number=0
for chunk in chunk_*; do
    curl -fsS "$@" -o /dev/null -X PUT \
        -H "X-Upload-Session-ID: $session" \
        -H "X-Chunk-Number: $number" \
        -H "Content-Type: application/octet-stream" \
        --data-binary "@$chunk" \
        "$endpoint"
    number=$((number + 1))
done
echo '{"done": true}'
