#!/bin/sh
# Searches a swap disk's image for what guest/swap.c wrote. usage: search_swap.sh IMAGE
# Ends well only if ordinary memory is found there and nothing that was droppable.
set -u
count() { LC_ALL=C grep -a -o "drp<$1>[0-9]*" "$2" | sort -u | wc -l; }
verdict=0
for kind in ordinary unmarked marked droppable droppable-marked; do
	found=$(count "$kind" "$1")
	echo "$kind: $found of 4096 patterns on the disk"
	case $kind in
	ordinary) [ "$found" -gt 2048 ] || { echo "the control was not found: the search proves nothing"; verdict=1; } ;;
	unmarked) ;;
	*) [ "$found" -eq 0 ] || { echo "$kind must never be there"; verdict=1; } ;;
	esac
done
[ $verdict -eq 0 ] && echo "success"
exit $verdict
