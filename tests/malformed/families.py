"""All malformed inputs by family; each family is a function that makes its cases."""

from malformed import folders, models, output, petab, settings, tables

FAMILIES = {
    "sbml": models.sbml,
    "antimony": models.antimony,
    "tables": tables.tables,
    "petab": petab.petab,
    "yaml": settings.yaml_files,
    "values": settings.values,
    "options": settings.options,
    "runs": folders.run_folders,
    "pages": folders.pages,
    "checkpoints": folders.checkpoints,
    "explorations": folders.explorations,
    "places": output.places,
    "disks": output.disks,
    "streams": output.streams,
}
