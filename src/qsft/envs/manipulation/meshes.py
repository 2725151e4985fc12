"""Fewer triangles to draw. What a CPU takes to draw a small picture goes with them, not with its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Meshes of fewer triangles stay as they are: the drawer's handle is one of them, which one can see through.
FEWEST_TRIANGLES = 1000
#: Metres within which vertices become one.
GRID = 0.004


def simplify(model: Any) -> None:
    """Draw the convex hull of each detailed mesh in its place, a tenth of the triangles.

    The arm's parts are convex but for screws and rims. Only what is drawn changes: MuJoCo lets meshes collide by hulls
    that it has made of all vertices.

    Args:
        model: a compiled MuJoCo model, changed in place.
    """
    from scipy.spatial import ConvexHull

    for mesh in range(model.nmesh):
        count = model.mesh_facenum[mesh]
        if count < FEWEST_TRIANGLES:
            continue
        first = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]].astype(np.float64)
        _, kept = np.unique(np.round(vertices / GRID), axis=0, return_index=True)
        hull = ConvexHull(vertices[kept])
        triangles, normals = kept[hull.simplices], hull.equations[:, :3]
        sides = vertices[triangles]
        inward = (np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0]) * normals).sum(1) < 0
        triangles[inward] = triangles[inward][:, ::-1]  # OpenGL leaves out what it sees from behind
        fewer = len(triangles)
        if fewer > min(count, model.mesh_normalnum[mesh]):  # there is no room for the hull
            continue
        face, normal = model.mesh_faceadr[mesh], model.mesh_normaladr[mesh]
        model.mesh_facenum[mesh] = fewer
        model.mesh_face[face : face + fewer] = triangles
        model.mesh_normal[normal : normal + fewer] = normals
        model.mesh_facenormal[face : face + fewer] = np.arange(fewer)[:, None]
