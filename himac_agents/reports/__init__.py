"""Reports: one offline HTML file with the curves and the episodes of training runs.

`charts` draws, `scales` places, `runs` reads folders, `groups` puts seeds together, `panels` turns
them into charts and tables, `page` writes the file.
"""
