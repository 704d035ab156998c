"""Lists of nodes and tasks in a trace's own format -> frozen values. Pure: text in, values out."""
