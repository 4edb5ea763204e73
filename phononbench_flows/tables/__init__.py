"""From the documents of a store to published tables: crystals as rows, rows as tables, tables as files and figures."""
