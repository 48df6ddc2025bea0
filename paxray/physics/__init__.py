"""HU to attenuation, per voxel; attenuation tables with their source."""
