"""Hulls that are drawn instead of meshes: the same shape, and nothing falls otherwise than before."""

from __future__ import annotations

import mujoco
import numpy as np

from qsft.envs.manipulation.meshes import FEWEST_TRIANGLES, GRID, simplify
from qsft.envs.manipulation.pictures import drawn_model


def falling(radius: float) -> mujoco.MjModel:
    """A ball of two thousand triangles above a tilted plane, and a box of twelve."""
    count = 1000
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    ball = radius * np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], 1)
    vertices = " ".join(f"{value:.6f}" for value in ball.ravel())
    return mujoco.MjModel.from_xml_string(f"""
    <mujoco>
      <asset><mesh name="ball" vertex="{vertices}"/>
        <mesh name="box" vertex="0 0 0  1 0 0  0 1 0  0 0 1  1 1 0  1 0 1  0 1 1  1 1 1"/></asset>
      <worldbody><geom type="plane" size="9 9 1" euler="10 0 0"/>
        <body pos="0 0 {2 * radius}"><freejoint/><geom type="mesh" mesh="ball"/></body>
        <body pos="3 0 2"><geom type="mesh" mesh="box"/></body></worldbody>
    </mujoco>""")


def drawn(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners ``[F, 3, 3]`` and normals ``[F, 3, 3]`` of what OpenGL gets of a mesh."""
    faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    corners = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[faces]]
    return corners, model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[faces]]


def test_a_hull_has_the_shape_of_the_mesh() -> None:
    radius = 0.02
    model = falling(radius)
    before = int(model.mesh_facenum[0])
    assert before > FEWEST_TRIANGLES
    simplify(model)
    corners, normals = drawn(model, 0)
    assert len(corners) < before / 2
    volume = np.linalg.det(corners).sum() / 6  # positive where the corners go round as seen from outside
    assert 0.93 < volume / (4 / 3 * np.pi * radius**3) < 1
    middles = corners.mean(1)
    assert np.linalg.norm(middles, axis=1).min() > radius - GRID
    outward = (normals[:, 0] * middles).sum(1) / np.linalg.norm(middles, axis=1)
    assert outward.min() > 0.97
    assert model.mesh_facenum[1] == 12


def test_nothing_falls_otherwise() -> None:
    ways = []
    for simplified in (False, True):
        model = falling(0.02)
        if simplified:
            simplify(model)
        data = mujoco.MjData(model)
        mujoco.mj_step(model, data, nstep=500)
        ways.append(data.qpos.copy())
    assert ways[0][2] < 0.04 and ways[0][1] != 0, "it has rolled"
    np.testing.assert_array_equal(*ways)


def test_the_arm_has_few_triangles_and_the_handle_its_hole() -> None:
    table = drawn_model()
    assert table.mesh_facenum.max() < 2000
    assert table.mesh_facenum[table.mesh("drawerhandle").id] == 736
